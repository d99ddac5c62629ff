"""Apache Kafka and Valkey as children of this process: for `dev`, `demo` and tests, never for production.

```python
with EmbeddedPair() as pair:  # servers on 127.0.0.1, gone with the block
    pair.bootstrap, pair.redis_url
```
"""

from stream_interp.embedded.kafka import EmbeddedKafka
from stream_interp.embedded.pair import EmbeddedPair
from stream_interp.embedded.valkey import EmbeddedValkey

__all__ = ["EmbeddedKafka", "EmbeddedPair", "EmbeddedValkey"]
