"""What lies on the topics: one file per record, with its codec. Pure: no Kafka, no clock, no files."""
