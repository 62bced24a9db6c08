"""What "true" means, one room per kind: `decide` is pure, `children` builds, `controller` gathers and hands over."""
