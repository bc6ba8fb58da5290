"""What makes a dictionary at home in other people's libraries: a module for each of them."""
