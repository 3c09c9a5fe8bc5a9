"""How the figures were taken, in words for the page."""

from typing import Final

METHOD: Final = (
    """<b>Engine alone</b>: frames from host memory to host memory, uint8 in and out, copies
    included. <i>Latency</i> is one frame at a time, from handing it over to having it back;
    <i>throughput</i> keeps as many frames under way as the backend takes, up to four.""",
    """<b>Live</b>: the whole path of <code>pix2live run</code> from a source of {fps:g} frames a
    second that sleeps between frames as a camera does, always the freshest frame, into a sink that
    shows nothing. <i>Age</i> is the time from the moment a frame was due until the sink had it;
    <i>jitter</i> is the standard deviation of the time between two shown frames; <i>dropped</i> are
    frames that a fresher one replaced. Camera and display add their own delay.""",
    """<b>Turns</b>: the cases of one size take turns (no more than {together} at a time), {rounds}
    rounds, another one first each time; each is warmed up before its clock starts. Figures are
    medians of the rounds, with the least and the most beside throughput. Sizes were measured one
    after the other.""",
    """<b>A process for each case</b>: <i>memory</i> is the most that it ever used until it could
    translate, one frame at a time, Python and libraries included; <i>open</i> is importing,
    compiling and warming up. <i>CPUs</i> are processors kept busy by the live path, source
    included.""",
    """<b>Picture</b>: PSNR to {reference} on {compared} frames; <i>same</i>: not one value
    differs.""",
    """<b>Noisy</b>: the rounds differ by more than 10 %, other programs took more than 5 % of the
    processors, or the host of a virtual machine more than 2 %.""",
)
"""HTML; `tools.bench.report` fills in the numbers."""
ROOFLINE: Final = """<b>Share of the roofline</b>: least time of a frame by measured time at
    throughput. The operations and bytes of the network as it was exported are counted; each
    operator takes at least as long as its arithmetic, or as moving its bytes. The ceilings were
    measured in this run, behind each turn, in the process of the case, on the same device: a
    network of 1x1 convolutions, and a copy of memory; the best of all rounds counts. More than
    100 % is a backend that does less than was counted, or a ceiling that was measured too low on a
    busy machine. Ceilings: {ceilings}."""
"""For a result that has one; HTML too."""
