"""What makes the networks work, counted: compound scaling and the blocks that save arithmetic."""
