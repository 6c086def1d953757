"""Where a defect lies: the object in a photograph, masks moved or made up in it, the square around a mask."""
