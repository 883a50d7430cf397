"""The end of one sandbox of an environment: whoever is inside has its last words, and they are read; then nothing of it exists any more."""

from __future__ import annotations

from dataclasses import dataclass

from lambent.invoke.channel import Channel
from lambent.invoke.inside import Inside
from lambent.invoke.log_pump import LogPump
from lambent.sandbox.driver import Sandbox


@dataclass(slots=True)
class Burial:
    """What an environment held of the sandbox, which from here on is ours to close."""

    sandbox: Sandbox
    channel: Channel | None
    inside: Inside | None
    pump: LogPump
    extension_pump: LogPump | None
    logs: int = -1

    def begin(self) -> None:
        """Hear no more. Somebody inside may have something to say yet, and it is read; to the runtime a closed channel would be the end."""
        if self.inside is not None:
            self.inside.leave()
        if self.inside is not None and self.inside.api is not None:
            if self.channel is not None:
                self.channel.pause()
            return
        self.logs = self.pump.detach()
        if self.channel is not None:
            self.channel.close()

    async def end(self, reason: str) -> None:
        """``reason`` is what extensions hear."""
        try:
            if self.inside is not None:
                await self.inside.shut_down(reason)
            await self.sandbox.kill()
        finally:
            logs = self.logs if self.logs >= 0 else self.pump.detach()
            self.pump.last_words(logs if logs >= 0 else self.sandbox.logs)
            if self.extension_pump is not None:
                self.extension_pump.last_words(self.extension_pump.detach())
            if self.channel is not None:
                self.channel.close()
            self.sandbox.channel.close()  # which is the channel's, unless the runtime talks HTTP or adopting it failed halfway
