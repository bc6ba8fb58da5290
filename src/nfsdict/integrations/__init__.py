"""A dictionary behind other packages' interfaces: a module for each, which needs that package."""
