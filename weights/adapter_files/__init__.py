"""What a fine-tune trained, in the files of this package and of other tools."""
