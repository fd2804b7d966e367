"""Fitted head: multinomial logistic regression on cached features, with its strength chosen out of fold."""
