"""The CEP shard: rules over the stream of what is stored."""

from actors.cep.shard import CepShard

__all__ = ["CepShard"]
