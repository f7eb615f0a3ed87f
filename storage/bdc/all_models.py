"""Every table of the BDC: importing this module makes ``metadata`` whole."""

from __future__ import annotations

from storage.bdc import cep_models, deployment_models, process_models, rule_models  # noqa: F401
from storage.bdc.models import Base

metadata = Base.metadata
