"""How good is a lane's detector? Its armed tests over many seeded draws of requests; pure, like what it measures."""
