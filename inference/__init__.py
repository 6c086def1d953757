"""What sample.py has beside its loop: the settings of a call, the request made of them, the folder."""
