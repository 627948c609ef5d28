"""What the hospital has decided: policy, approvals, frozen cohorts, accounts and budget."""
