"""What both sides share: the campaign file, the protocol, estimators, the additive statistics and their mathematics."""
