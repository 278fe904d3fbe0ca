"""Names in published files and in this package: of a layer and of a config's field."""

# here, in Hugging Face's files, in bert4keras; {n} is a layer's number
LAYERS = """
word_embeddings             embeddings.word_embeddings                      Embedding-Token
type_embeddings             embeddings.token_type_embeddings                Embedding-Segment
position_embeddings         embeddings.position_embeddings                  Embedding-Position
embeddings_norm             embeddings.LayerNorm                            Embedding-Norm
layer_{n}_query             encoder.layer.{n}.attention.self.query          Transformer-{n}-MultiHeadSelfAttention
layer_{n}_key               encoder.layer.{n}.attention.self.key            Transformer-{n}-MultiHeadSelfAttention
layer_{n}_value             encoder.layer.{n}.attention.self.value          Transformer-{n}-MultiHeadSelfAttention
layer_{n}_attention_output  encoder.layer.{n}.attention.output.dense        Transformer-{n}-MultiHeadSelfAttention
layer_{n}_attention_norm    encoder.layer.{n}.attention.output.LayerNorm    Transformer-{n}-MultiHeadSelfAttention-Norm
layer_{n}_intermediate      encoder.layer.{n}.intermediate.dense            Transformer-{n}-FeedForward
layer_{n}_output            encoder.layer.{n}.output.dense                  Transformer-{n}-FeedForward
layer_{n}_output_norm       encoder.layer.{n}.output.LayerNorm              Transformer-{n}-FeedForward-Norm
embedding_projection        -                                               Embedding-Mapping
pooler                      pooler.dense                                    Pooler-Dense
mlm_transform               cls.predictions.transform.dense                 MLM-Dense
mlm_norm                    cls.predictions.transform.LayerNorm             MLM-Norm
mlm_bias                    cls.predictions                                 MLM-Bias
classifier                  classifier                                      -
"""
# in Google's bert_config.json and albert_config.json and in Hugging Face's config.json, in `BertConfig`
FIELDS = """
vocab_size                    vocab_size
hidden_size                   hidden_size
num_hidden_layers             num_layers
num_attention_heads           num_heads
intermediate_size             intermediate_size
max_position_embeddings       max_position_embeddings
type_vocab_size               type_vocab_size
hidden_act                    activation
hidden_dropout_prob           dropout
attention_probs_dropout_prob  attention_dropout
initializer_range             initializer_range
layer_norm_eps                layer_norm_eps
embedding_size                embedding_size
"""
_VARIABLES = {"embeddings": ("embeddings",), "norm": ("beta", "gamma"), "bias": ("bias",)}


def rows(num_layers):
    """(name here, Hugging Face's, bert4keras') of every layer; bert4keras has one name for several layers."""
    for line in LAYERS.strip().splitlines():
        for n in range(num_layers if "{n}" in line else 1):
            yield line.format(n=n).split()


def variables(layer):
    """A layer's variables by name here, in bert4keras' order."""
    return _VARIABLES.get(layer.split("_")[-1], ("kernel", "bias"))
