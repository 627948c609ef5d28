"""What travels: requests, replies, signatures, log heads."""
