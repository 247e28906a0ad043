"""Training from rewards and from preferences: rollouts, rewards, likelihoods, objectives."""
