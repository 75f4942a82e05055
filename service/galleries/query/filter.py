"""The filter of a search, from its options and the entries of its query."""

from collections.abc import Sequence

from pan_reid.schemas import SearchOptions
from service.core.clock import to_micros
from service.core.errors import InvalidRequest
from service.core.models import EntryRow
from service.index.attributes import attribute_key
from service.index.metadata import Filter


def search_filter(options: SearchOptions, entries: Sequence[EntryRow]) -> Filter:
    """The filter. Entries of the query give its cameras and persons unless the options do, and are never found.

    Raises InvalidRequest if an exclusion needs the camera or person of the query and it is unknown.
    """
    pairs = [(options.person_id or entry.person_id, options.camera_id or entry.camera_id) for entry in entries] or [
        (options.person_id, options.camera_id)
    ]
    own_cameras = frozenset(camera for _, camera in pairs if camera is not None)
    own_pairs = frozenset((person, camera) for person, camera in pairs if person is not None and camera is not None)
    if options.exclude_same_camera and not own_cameras:
        raise InvalidRequest("exclude_same_camera needs the query's camera: give camera_id")
    if options.exclude_same_person_same_camera and not own_pairs:
        raise InvalidRequest("exclude_same_person_same_camera needs the query's person_id and camera_id")
    exclude_cameras = frozenset(options.exclude_cameras)
    return Filter(
        cameras=None if options.cameras is None else frozenset(options.cameras),
        exclude_cameras=exclude_cameras | own_cameras if options.exclude_same_camera else exclude_cameras,
        persons=None if options.persons is None else frozenset(options.persons),
        exclude_persons=frozenset(options.exclude_persons),
        captured_from=None if options.captured_from is None else to_micros(options.captured_from),
        captured_until=None if options.captured_until is None else to_micros(options.captured_until),
        attributes=frozenset(
            frozenset(attribute_key(name, one) for one in (value if isinstance(value, list) else [value]))
            for name, value in options.attributes.items()
        ),
        exclude_persons_at_cameras=own_pairs if options.exclude_same_person_same_camera else frozenset(),
        exclude_entries=frozenset(entry.id for entry in entries),
    )
