"""The sides of the rows: each function (size, device) builds what a row needs and returns its step."""
