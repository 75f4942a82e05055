"""The state machine: every rule of the fuzz over one state."""

from benchmarks.fuzz.enrolment import EnrolmentRules
from benchmarks.fuzz.galleries import GalleryRules
from benchmarks.fuzz.lifecycle import LifecycleRules
from benchmarks.fuzz.searches import SearchRules


class ServiceMachine(GalleryRules, EnrolmentRules, SearchRules, LifecycleRules):
    """Whatever is asked: no 5xx, and lists, counts, searches and receipts equal the model."""
