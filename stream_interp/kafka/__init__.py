"""The shell around Kafka: the only importer of `confluent_kafka`."""
