"""What happens around the generator."""
