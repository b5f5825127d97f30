"""Studies of what makes the networks work: compound scaling, residual learning, blocks that save arithmetic."""
