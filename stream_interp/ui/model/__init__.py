"""What the topics say, held in bounded memory. Pure: fed with consumed records."""
