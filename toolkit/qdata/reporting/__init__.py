"""What an output is, in numbers and examples (facts.py), and those for people: in a terminal and as one HTML file."""
