"""Measuring samples: are they right, real, varied, and no copies of the training images?"""
