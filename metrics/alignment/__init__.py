"""Do images show what they were made to show: the words of a prompt, a logo, a subject?"""
