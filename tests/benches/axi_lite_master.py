"""A host on an AXI4-Lite bus that is as slow and as fast, and in any order, as the bus allows."""

import cocotb
from cocotb.triggers import FallingEdge

OKAY, SLVERR = 0, 2


class AxiLiteMaster:
    """Writes and reads with random delays on every channel; `rng` None: as fast as it goes."""

    def __init__(self, dut, rng=None):
        self.dut, self.rng = dut, rng
        for name in ("awvalid", "wvalid", "bready", "arvalid", "rready"):
            self._signal(name).value = 0
        for name in ("awaddr", "awprot", "wdata", "wstrb", "araddr", "arprot"):
            self._signal(name).value = 0

    async def write(self, offset, data, strobe=15):
        """Return the response of a write."""
        address = cocotb.start_soon(self._send("aw", awaddr=offset))
        await self._send("w", wdata=data, wstrb=strobe)
        await address
        (response,) = await self._receive("b", "bresp")
        return response

    async def read(self, offset):
        """Return the data and the response of a read."""
        await self._send("ar", araddr=offset)
        return await self._receive("r", "rdata", "rresp")

    def _signal(self, name):
        return getattr(self.dut, f"s_axi_{name}")

    async def _wait(self):
        for _ in range(self.rng.choice([0, 0, 1, 2, 5]) if self.rng else 0):
            await FallingEdge(self.dut.clk)

    async def _send(self, channel, **payload):
        await self._wait()
        for name, value in payload.items():
            self._signal(name).value = value
        self._signal(f"{channel}valid").value = 1
        taken = False
        while not taken:
            taken = int(self._signal(f"{channel}ready").value)
            await FallingEdge(self.dut.clk)
        self._signal(f"{channel}valid").value = 0
        for name in payload:  # nothing may hang on them any longer
            self._signal(name).value = self.rng.getrandbits(2) if self.rng else 0

    async def _receive(self, channel, *names):
        await self._wait()
        while not int(self._signal(f"{channel}valid").value):
            await FallingEdge(self.dut.clk)
        offered = tuple(int(self._signal(name).value) for name in names)
        await self._wait()
        assert int(self._signal(f"{channel}valid").value) == 1
        assert tuple(int(self._signal(name).value) for name in names) == offered, "must be stable"
        self._signal(f"{channel}ready").value = 1
        await FallingEdge(self.dut.clk)
        self._signal(f"{channel}ready").value = 0
        return offered
