"""The walker of the core: takes orders and messages, keeps the catalog, decides by the pure rooms, tells devices.

`walker.Steward` has five verbs (start, order, handle, tick, renew) and returns actions; `desk` answers orders,
`approvals` those about releases, `trust` those about keys and how signatures are collected, `forcing` those by which
people overrule it; `ears` hears devices, `carrying` those that come by folder; `assigning` tells a device what it shall
run; `rounds` moves rollouts and renews what expires, `lots` keeps splits of older versions as they were told,
`learning` starts trainings by itself, `house` is what they share. One thread, the only writer of the tenant's catalog,
the only holder of the director's, snapshot's and timestamp's keys.
"""

from core.steward.house import Access, Action, Cut, House, Keys, PersistBroker, Send, SendBlob, StartJob
from core.steward.walker import Steward

__all__ = ["Access", "Action", "Cut", "House", "Keys", "PersistBroker", "Send", "SendBlob", "StartJob", "Steward"]
