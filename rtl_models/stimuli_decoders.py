"""Subjects of the decoders of packed weights: every code may come, also those that are refused."""

from rtl_models.mutants import Subject
from rtl_models.stimuli import drive_combinational

_TERNARY = {"codes": "valid"}

SUBJECTS = (
    Subject(
        "nhot_code_decoder", "nhot_code_decoder", {}, drive_combinational, gates={"terms": "valid"}
    ),
    Subject("nhot_pair_decoder", "nhot_pair_decoder", {}, drive_combinational),
    Subject("trit_decoder", "trit_decoder", {}, drive_combinational, gates=_TERNARY),
    Subject("trit_pair_decoder", "trit_pair_decoder", {}, drive_combinational, gates=_TERNARY),
    Subject(
        "trit_pair_decoder offset",
        "trit_pair_decoder",
        {"OFFSET": 1},
        drive_combinational,
        gates=_TERNARY,
    ),
    Subject(
        "ternary_plane_decoder", "ternary_plane_decoder", {}, drive_combinational, gates=_TERNARY
    ),
)
