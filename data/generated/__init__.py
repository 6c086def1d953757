"""Photographs that are computed and not taken: products with defects, and garments with a logo."""
