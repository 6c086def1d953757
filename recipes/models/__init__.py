"""The model that trains: loaded or new, with rows or a word that it lacks, on its path of noise, small in memory."""
