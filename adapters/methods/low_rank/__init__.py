"""Factors beside a frozen weight, or in a product with it, that hold few numbers."""
