"""What a model samples for a recipe: grids and numbers while it trains, and a subject's class before it does."""
