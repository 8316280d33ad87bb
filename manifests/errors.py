"""Every exception that adapterdock raises, at the place where users import them from."""

from __future__ import annotations

from .findings.errors import AdapterdockError as AdapterdockError
from .findings.errors import AttachError as AttachError
from .findings.errors import FingerprintError as FingerprintError
from .findings.errors import FitError as FitError
from .findings.errors import IntegrityError as IntegrityError
from .findings.errors import LockError as LockError
from .findings.errors import ManifestError as ManifestError
from .findings.errors import OfflineError as OfflineError
from .findings.errors import PolicyError as PolicyError
from .findings.errors import RoutingError as RoutingError
from .findings.errors import SourceError as SourceError
from .findings.errors import StoreError as StoreError
from .findings.errors import UsageError as UsageError
