"""One message in, one answer out: verified, admitted, computed, checked, written down, signed."""
