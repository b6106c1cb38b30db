"""The table of schemes. A new one is a file with a dataclass that extends ``Scheme``, and a row here."""

from zellige.train.schemes.dense import Dense
from zellige.train.schemes.fixed import Fixed
from zellige.train.schemes.gradual import Gradual
from zellige.train.schemes.lasso import Lasso
from zellige.train.schemes.penalty import Penalty
from zellige.train.schemes.regrow import Regrow
from zellige.train.schemes.scheme import Scheme
from zellige.train.schemes.stages import Stages
from zellige.train.schemes.ste import Ste

SCHEMES: dict[str, type[Scheme]] = {
    "dense": Dense,
    "fixed": Fixed,
    "gradual": Gradual,
    "stages": Stages,
    "penalty": Penalty,
    "lasso": Lasso,
    "regrow": Regrow,
    "ste": Ste,
}

__all__ = ["SCHEMES", "Dense", "Fixed", "Gradual", "Lasso", "Penalty", "Regrow", "Scheme", "Stages", "Ste"]
