"""Is the object in the picture, and the word on it: a detector that is trained here, and a reader of text."""
