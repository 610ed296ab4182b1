"""All modules whose mutants are run: what drives them is told by `stimuli` and its neighbours."""

from rtl_models import (
    stimuli,
    stimuli_control,
    stimuli_decoders,
    stimuli_machine,
    stimuli_transfers,
    stimuli_units,
    stimuli_winograd,
)

SUBJECTS = (
    *stimuli.SUBJECTS,
    *stimuli_decoders.SUBJECTS,
    *stimuli_winograd.SUBJECTS,
    *stimuli_units.SUBJECTS,
    *stimuli_transfers.SUBJECTS,
    *stimuli_control.SUBJECTS,
    *stimuli_machine.SUBJECTS,
)
"""From the arithmetic of a PE up to the whole accelerator."""
