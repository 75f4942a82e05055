"""The state machine with all rules."""

from benchmarks.fuzz.enrolment import EnrolmentRules
from benchmarks.fuzz.galleries import GalleryRules
from benchmarks.fuzz.lifecycle import LifecycleRules
from benchmarks.fuzz.searches import SearchRules


class ServiceMachine(GalleryRules, EnrolmentRules, SearchRules, LifecycleRules):
    """No call returns 5xx, and lists, counts, searches and receipts equal the model."""
