"""Files nobody meant: every parser of the product on inputs that are made of good ones by changing them. ``make fuzz
TIME=3600``."""
