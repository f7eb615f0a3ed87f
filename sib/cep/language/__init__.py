"""The CEP rule language: text to :mod:`sib.cep.language.ast`, and what is wrong with it."""
