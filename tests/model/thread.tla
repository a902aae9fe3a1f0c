------------------------------- MODULE thread -------------------------------
\* One thread of messages, as the scripts in streambatch/lua treat it.
\*
\* Theory of operation. A script is one step, because the server runs it as one: `db` is everything it may see of this
\* thread. A process is a sequence of requests; each is executed and its answer is heard, or executed and not heard,
\* and then it is sent again exactly as it was. Whatever can happen between two steps may happen: a crash, an end of
\* the lease under a live worker, a copy of a request that arrives after its sender has gone on, a fail-over to a
\* replica that lacks what came last. A process that is stopped and wakes up late needs no step of its own: nothing
\* obliges it to go on, and its lease may end meanwhile.
\*
\* Time is only order. A lease is live until Expire; windows and retry delays may have passed whenever somebody asks.
\* So no promise about seconds is checked (I9, I12), only where the moments are written down: the second half of
\* db.index says which moment the thread's entry holds.
\*
\* Which step is which file:
\*   Apply, Store    submit.lua, _producer.lua            Delivered     delivered.lua
\*   Apply, Cancel   cancel.lua, _producer.lua            Undelivered   undelivered.lua
\*   Take            claim.lua: _take, _pin, _grant       Release       release.lua: a failure, or a drain
\*   GoOn            the end of _take.lua                 Renewed       renew.lua
\*   Start           start.lua and the XRANGE beside it   Finish, Tombstone, Forget: _turn.lua
\*   Settle, Commit  settle.lua, bury.lua (kind "dead"), _commit.lua
\* Ask, End, Back, Hand and Hear are _due.py and _turn.py; Call, Answered and Unheard are _intake.py.
\*
\* Fields of db that no server has, to say what should be true: stored (calls that stored), log (committed messages,
\* in order), reps and by (claims that committed, with a reply and at all), gone (dropped by a cancel), pins (batches
\* that were started), buried (replies that became dead letters). They fail over with the rest: what is promised is
\* promised by the server that lives, of what it knows. Not lost with a server: cl.told (what callers were answered),
\* ever (claims that were committed by some server), handed (replies that were handed over).
\*
\* What holds only under an assumption:
\* 1. I1 for the caller (told implies kept) and I6 for receipts hold while no fail-over to a stale replica happened; this
\*    is the durability class. After one they hold for what the replica had.
\* 2. I3_told: the tombstone must outlive everybody who may send its operation again (Vanish). And whoever is told "lost"
\*    after somebody else was granted the thread may have committed before.
\* 3. Entry ids of two servers differ: after a fail-over they go on above those that were lost (10 * fails). The scripts
\*    take them from the clock, so clocks must agree better than a fail-over lasts. Within one server it may stand still.
\* 4. What was on its way to a server ends with it. If a copy of a claim could reach the next server (a proxy that keeps
\*    requests), counter and claim id would make the same token again, for another batch, and I17_committed falls.
\*
\* Left out: several threads (each has keys of its own; the one shared thing, the order of `due`, is a matter of
\* time), pause and park, more, split, redrive, repair and foreign keys, checkpoints and histories (settle.lua writes
\* them in the same step), limits of memory and of pending messages, processes that only run or only deliver (but
\* settling may leave the reply to others), several producers, whose order nobody promises, and a clock that jumps.
\* tests/simulation and tests/guards look at those with the real scripts.
\*
\* The world is small: two workers, a few calls, claims and faults; see plans.py. Within that, every order of events
\* is looked at. Beyond it the model says nothing.
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS
  Workers,      \* the processes that claim
  Kinds,        \* what a caller may ask: "plain", "same" (always the same message id), "stop", "cancel"
  MaxCalls,     \* numbered calls of the one producer
  MaxClaims,    \* claim ids that are ever granted
  MaxBatch,     \* max_batch
  MaxAttempts,  \* max_attempts
  MaxTries,     \* max_delivery_attempts
  MaxFails,     \* fail-overs to a stale replica
  MaxLate,      \* copies of a request that arrive after its sender has gone on
  Budget,       \* 0: faults are not counted; else how many there may be (only liveness needs an end of faults)
  Off           \* the defences that are switched off: a mutant

VARIABLES db, snap, fails, cl, wk, late, lates, used, ever, handed, wrong, faults

vars == <<db, snap, fails, cl, wk, late, lates, used, ever, handed, wrong, faults>>
world == <<cl, wk, late, lates, used, ever, handed, wrong>>

On(defence) == defence \notin Off
Nothing == <<0, 0>>
None == [pc |-> "none"]
NoLease == [tok |-> Nothing, cid |-> 0, live |-> FALSE, phase |-> "", op |-> <<Nothing, "">>, ans |-> ""]
NoRun == [k |-> "none", first |-> 0, last |-> 0, att |-> 0, by |-> Nothing, can |-> FALSE, dl |-> 0, rep |-> 0, tries |-> 0]
Idle == [pc |-> "idle", cid |-> 0, tok |-> Nothing, saw |-> <<>>, rep |-> 0, kind |-> "", hands |-> FALSE, next |-> 0,
         can |-> FALSE, att |-> 0]
Row(word) == [w |-> word, tok |-> Nothing, rep |-> 0, can |-> FALSE, ms |-> <<>>, att |-> 0, did |-> FALSE]

Max(a, b) == IF a > b THEN a ELSE b
Min(a, b) == IF a < b THEN a ELSE b
SetOf(s) == {s[i] : i \in 1..Len(s)}
Within(d, first, last) == SelectSeq(d.stream, LAMBDA e : e[1] >= first /\ e[1] <= last)
Without(d, first, last) == SelectSeq(d.stream, LAMBDA e : e[1] < first \/ e[1] > last)
Place(d, set, why) == [d EXCEPT !.index = <<set, why>>]

Init ==
  /\ db = [stream |-> <<>>, gen |-> 0, last |-> 0, run |-> NoRun, lease |-> NoLease, index |-> <<"none", "">>, epoch |-> 0,
           pn |-> 0, pa |-> 0, seen |-> 0, log |-> <<>>, reps |-> <<>>, by |-> {}, gone |-> {}, stored |-> {}, pins |-> {}, buried |-> {}]
  /\ snap = None /\ fails = 0 /\ late = None /\ lates = 0 /\ used = {} /\ ever = {} /\ handed = {} /\ wrong = {} /\ faults = 0
  /\ cl = [n |-> 0, sent |-> FALSE, again |-> FALSE, kinds |-> <<>>, told |-> <<>>]
  /\ wk = [w \in Workers |-> Idle]

-----------------------------------------------------------------------------
\* _turn.lua: the end of a claim. The operation and its answer stay, the token goes.
Tombstone(d, op, answer) ==
  [d EXCEPT !.lease = [NoLease EXCEPT !.op = op, !.ans = answer]]
Forget(d) == [d EXCEPT !.stream = <<>>, !.gen = 0, !.index = <<"none", "">>]
Finish(d0, op, answer) ==
  LET d == Tombstone([d0 EXCEPT !.run = NoRun], op, answer)
  IN IF d.stream = <<>> \/ ~On("only what is empty") THEN Forget(d)
     ELSE IF On("due at settle") THEN Place(d, "due", "window") ELSE Place(d, "none", "")

\* _take.lua, _pin.lua, _grant.lua.
Pinned(d) ==
  IF d.run.k # "none" /\ On("pin") THEN d
  ELSE [d EXCEPT !.run = [NoRun EXCEPT !.k = "batch", !.first = d.stream[1][1], !.att = d.run.att,
                                       !.last = d.stream[Min(MaxBatch, Len(d.stream))][1]]]
Grant(d, cid) ==
  LET tok == <<d.epoch + 1, IF On("nonce") THEN cid ELSE 0>>
      phase == IF d.run.k = "reply" THEN "reply" ELSE "run"
      l == [d.lease EXCEPT !.tok = tok, !.cid = cid, !.live = TRUE, !.phase = phase]
      placed == IF ~On("due at claim") THEN <<"none", "">> ELSE <<IF phase = "run" THEN "due" ELSE "outbox", "lease">>
  IN [d EXCEPT !.epoch = d.epoch + 1, !.lease = l, !.index = placed]
Work(d) == [Row(d.lease.phase) EXCEPT !.tok = d.lease.tok, !.rep = d.run.rep, !.can = d.run.can]
Take(d, cid) ==
  LET r == IF d.run.k = "batch" /\ Within(d, d.run.first, d.run.last) = <<>> THEN NoRun ELSE d.run
      e == [d EXCEPT !.run = r]
      g == Grant(IF r.k = "reply" THEN e ELSE Pinned(e), cid)
  IN IF d.lease.live
     THEN IF d.lease.cid = cid THEN [d |-> d, a |-> Work(d)]
          ELSE [d |-> Place(d, IF d.run.k = "reply" THEN "outbox" ELSE "due", "lease"), a |-> Row("held")]
     ELSE IF r.k = "none" /\ d.stream = <<>> THEN [d |-> Forget(e), a |-> Row("idle")]
     ELSE [d |-> g, a |-> Work(g)]

\* A verb that ended a turn takes the thread's next batch in the same call, if that is due and nobody waits longer (go).
GoOn(d, q, go, row) ==
  LET t == Take(d, q.next)
      goes == d.lease.cid = q.next \/ (go /\ ~d.lease.live /\ d.index[1] = "due")
  IN IF q.next # 0 /\ row.w = "done" /\ goes /\ t.a.w \in {"run", "reply"}
     THEN [d |-> t.d, a |-> [t.a EXCEPT !.did = row.did, !.ms = row.ms]] ELSE [d |-> d, a |-> row]

\* start.lua, together with the XRANGE of the batch that travels beside it.
Start(d, q) ==
  LET ms == Within(d, d.run.first, d.run.last)
      att == IF d.run.by = q.tok THEN d.run.att ELSE d.run.att + 1
  IN IF d.lease.tok # q.tok \/ d.run.k # "batch" THEN [d |-> d, a |-> Row("lost")]
     ELSE [d |-> [d EXCEPT !.run.att = att, !.run.by = q.tok, !.pins = @ \cup {ms}],
           a |-> [Row("started") EXCEPT !.ms = ms, !.att = att, !.can = d.run.can]]

\* settle.lua and bury.lua (kind "dead"). _commit.lua: everything from the first member to the last one that the Run saw.
OpOf(q) == <<q.tok, CASE q.pc = "deliver" -> "d" [] q.pc = "undeliver" -> "u" [] q.pc = "release" -> "r"
                      [] q.kind = "cancelled" -> "c" [] q.kind = "dead" -> "b" [] OTHER -> "s">>
Known(d, q) == On("tombstone") /\ d.lease.op = OpOf(q)
Fenced(d, q, defence) == On(defence) /\ d.lease.tok # q.tok
Upto(d, q) == IF On("only the batch") THEN q.saw[Len(q.saw)][1] ELSE d.gen
Commit(d, q) ==
  LET upto == Upto(d, q)
      passed == IF d.run.dl > upto THEN d.run.dl ELSE upto
  IN [d EXCEPT !.stream = IF On("delete") THEN Without(d, d.run.first, upto) ELSE @, !.last = passed, !.by = @ \cup {q.cid},
               !.log = @ \o Within(d, d.run.first, upto), !.reps = IF q.kind = "answer" THEN Append(@, q.cid) ELSE @]
Settle(d, q, go) ==
  LET c == Commit(d, q)
      r == [c EXCEPT !.run = [NoRun EXCEPT !.k = "reply", !.rep = q.cid]]
      row(word) == [Row(word) EXCEPT !.did = TRUE, !.ms = Within(d, d.run.first, Upto(d, q)), !.rep = q.cid]
  IN IF Known(d, q) THEN GoOn(d, q, go, [Row(d.lease.ans) EXCEPT !.rep = q.cid])
     ELSE IF Fenced(d, q, "fence") \/ d.run.k # "batch" THEN [d |-> d, a |-> Row("lost")]
     ELSE IF d.run.can /\ q.kind \in {"answer", "none"} THEN [d |-> d, a |-> Row("cancelling")]
     ELSE IF q.kind # "answer" \/ ~On("keep the reply") THEN GoOn(Finish(c, OpOf(q), "done"), q, go, row("done"))
     ELSE IF q.hands
     THEN [d |-> Place([r EXCEPT !.lease.op = OpOf(q), !.lease.ans = "kept", !.lease.phase = "reply", !.lease.live = TRUE],
                       "outbox", "lease"), a |-> row("kept")]
     ELSE [d |-> Place(Tombstone(r, OpOf(q), "left"), "outbox", "now"), a |-> row("left")]

\* delivered.lua, undelivered.lua, release.lua.
Delivered(d, q, go) ==
  IF Known(d, q) THEN GoOn(d, q, go, Row("done"))
  ELSE IF Fenced(d, q, "fence of delivered") \/ d.run.k # "reply" THEN [d |-> d, a |-> Row("lost")]
  ELSE GoOn(Finish(d, OpOf(q), "done"), q, go, Row("done"))
Undelivered(d, q) ==
  LET buried == Finish([d EXCEPT !.buried = @ \cup {d.run.rep}], OpOf(q), "ended")
      later == Place(Tombstone([d EXCEPT !.run.tries = @ + 1], OpOf(q), "ended"), "outbox", "retry")
  IN IF Known(d, q) THEN [d |-> d, a |-> Row("ended")]
     ELSE IF Fenced(d, q, "fence") \/ d.run.k # "reply" THEN [d |-> d, a |-> Row("lost")]
     ELSE [d |-> IF d.run.tries + 1 >= MaxTries THEN buried ELSE later, a |-> Row("ended")]
Release(d, q) ==
  LET att == IF q.kind = "back" /\ d.run.by = q.tok THEN d.run.att - 1 ELSE d.run.att
      e == Tombstone([d EXCEPT !.run.att = att], OpOf(q), "ended")
  IN IF Known(d, q) THEN [d |-> d, a |-> Row("ended")]
     ELSE IF Fenced(d, q, "fence of release") \/ d.run.k = "none" THEN [d |-> d, a |-> Row("lost")]
     ELSE [d |-> IF d.run.k = "reply" THEN Place(e, "outbox", "retry") ELSE Place(e, "due", IF d.run.can THEN "now" ELSE "retry"),
           a |-> Row("ended")]

\* renew.lua: compares the token, not the deadline: who comes late but before the next claimer keeps the thread.
Renewed(d, tok) ==
  IF On("fence of renew") /\ d.lease.tok # tok THEN d
  ELSE Place([d EXCEPT !.lease.live = TRUE], IF d.lease.phase = "run" THEN "due" ELSE "outbox", "lease")

\* submit.lua. The worst clock: it stands still, so an id is only as great as what is remembered makes it.
Store(d, n, kind) ==
  LET old == kind = "same" /\ d.seen # 0 /\ On("seen")
      after == IF d.stream # <<>> THEN d.gen ELSE IF On("last id") THEN d.last ELSE 0
      id == Max(after, 10 * fails) + 1
      e == [d EXCEPT !.stream = Append(@, <<id, n>>), !.gen = id, !.stored = @ \cup {n}, !.pa = id, !.pn = n,
                     !.seen = IF kind = "same" THEN id ELSE @]
  IN IF old THEN [d EXCEPT !.pn = n, !.pa = d.seen]
     ELSE IF d.run.k = "none" \/ ~On("leave the moment") THEN Place(e, "due", "window") ELSE e

\* cancel.lua: ends the Run ("stop", "cancel"), and drops what waits ("cancel").
Cancel(d, n, kind) ==
  LET b == d.run.k = "batch"
      asked == IF ~b THEN d ELSE IF d.lease.live THEN [d EXCEPT !.run.can = TRUE] ELSE Place([d EXCEPT !.run.can = TRUE], "due", "now")
      from == IF b THEN d.run.last + 1 ELSE 1
      drop == IF kind = "cancel" THEN Within(d, from, d.gen) ELSE <<>>
      e == [asked EXCEPT !.stream = Without(d, from, d.gen), !.gone = @ \cup SetOf(drop), !.last = drop[Len(drop)][1],
                         !.run.dl = IF b THEN drop[Len(drop)][1] ELSE @]
      f == IF drop = <<>> THEN asked ELSE IF b THEN e ELSE IF d.run.k = "reply" THEN [e EXCEPT !.gen = 0] ELSE Forget(e)
  IN [f EXCEPT !.pn = n, !.pa = 0]

\* _producer.lua: a numbered call is applied once.
Apply(d, n, kind, again) ==
  LET known == On("call numbers")
      do == IF kind \in {"stop", "cancel"} THEN Cancel(d, n, kind) ELSE Store(d, n, kind)
  IN IF known /\ d.pn = 0 /\ again THEN [d |-> d, id |-> 0]
     ELSE IF known /\ d.pn >= n THEN [d |-> d, id |-> IF d.pn = n THEN d.pa ELSE 0]
     ELSE [d |-> do, id |-> do.pa]

Exec(d, q, go) ==
  CASE q.pc = "claim" -> Take(d, q.cid)
    [] q.pc = "start" -> Start(d, q)
    [] q.pc = "settle" -> Settle(d, q, go)
    [] q.pc = "deliver" -> Delivered(d, q, go)
    [] q.pc = "undeliver" -> Undelivered(d, q)
    [] q.pc = "release" -> Release(d, q)
    [] q.pc = "call" -> [d |-> Apply(d, q.n, q.kind, FALSE).d, a |-> Row("heard")]

-----------------------------------------------------------------------------
\* What a worker does with an answer.
Hear(q, a) ==
  CASE a.w = "run" -> [Idle EXCEPT !.pc = "start", !.cid = IF q.pc = "claim" THEN q.cid ELSE q.next, !.tok = a.tok, !.can = a.can]
    [] a.w = "reply" -> [Idle EXCEPT !.pc = "hand", !.cid = IF q.pc = "claim" THEN q.cid ELSE q.next, !.tok = a.tok, !.rep = a.rep]
    [] a.w = "started" -> [q EXCEPT !.pc = "run", !.saw = a.ms, !.att = a.att, !.can = a.can]
    [] a.w = "cancelling" -> [q EXCEPT !.pc = "run", !.can = TRUE, !.kind = "", !.hands = FALSE, !.next = 0]
    [] a.w = "kept" -> [Idle EXCEPT !.pc = "hand", !.cid = q.cid, !.tok = q.tok, !.rep = a.rep]
    [] OTHER -> Idle

Fault == IF Budget = 0 THEN UNCHANGED faults ELSE faults < Budget /\ faults' = faults + 1
Taken == used \cup {wk[w].cid : w \in Workers} \cup {wk[w].next : w \in Workers}
              \cup (IF late.pc \in {"none", "call"} THEN {} ELSE {late.cid, late.next})
Left == (1..MaxClaims) \ Taken
Fresh == CHOOSE c \in Left : \A b \in Left : c <= b
Sends == {"claim", "start", "settle", "deliver", "undeliver", "release"}
Changed(w, q) == wk' = [wk EXCEPT ![w] = q]

\* The effect of a request on the server and on what is known of it from outside.
Serve(q, r) ==
  /\ db' = r.d
  /\ used' = used \cup ({r.d.lease.cid} \ {0})
  /\ ever' = IF r.a.did THEN ever \cup {q.cid} ELSE ever
\* Committed something that the Run never saw; wrote although somebody else holds the thread, or nobody does.
Blind(r, q) == IF ~r.a.did \/ SetOf(r.a.ms) \subseteq SetOf(q.saw) THEN {} ELSE {"unseen"}
Zombie(r, q) == IF q.pc # "claim" /\ q.tok # db.lease.tok /\ r.d # db /\ r.d.epoch = db.epoch THEN {"zombie"} ELSE {}
\* Told "lost" although the Run is committed and nobody was granted the thread since.
Lied(q, a) == IF a.w = "lost" /\ q.pc = "settle" /\ db.epoch = q.tok[1] /\ q.cid \in db.by
              THEN {"told"} ELSE {}

Ask(w) ==
  /\ wk[w].pc = "idle" /\ db.index[1] # "none" /\ ~db.lease.live /\ Left # {}
  /\ Changed(w, [Idle EXCEPT !.pc = "claim", !.cid = Fresh])
  /\ UNCHANGED <<db, snap, fails, cl, late, lates, used, ever, handed, wrong, faults>>
\* A request is executed; its answer is heard, or lost, and then the request is sent again as it was.
Sent(w, heard) ==
  /\ wk[w].pc \in Sends
  /\ \E go \in IF wk[w].next = 0 THEN {FALSE} ELSE BOOLEAN :
       LET r == Exec(db, wk[w], go)
       IN /\ Serve(wk[w], r)
          /\ IF heard THEN Changed(w, Hear(wk[w], r.a)) /\ wrong' = wrong \cup Blind(r, wk[w]) \cup Zombie(r, wk[w]) \cup Lied(wk[w], r.a)
             ELSE UNCHANGED wk /\ wrong' = wrong \cup Blind(r, wk[w]) \cup Zombie(r, wk[w])
  /\ IF heard THEN UNCHANGED faults ELSE Fault
  /\ UNCHANGED <<snap, fails, cl, late, lates, handed>>
\* A Run ends: it answered (and this process delivers, or not), said nothing, failed, or failed too often.
Verdicts(q) ==
  IF q.can THEN {"cancelled"} ELSE IF q.att > MaxAttempts THEN {"dead"}
  ELSE {"answer", "none", IF q.att >= MaxAttempts THEN "dead" ELSE "retry"}
End(w) ==
  /\ wk[w].pc = "run"
  /\ \E kind \in Verdicts(wk[w]), hands \in BOOLEAN, next \in {0} \cup (IF Left = {} THEN {} ELSE {Fresh}) :
       /\ hands => kind = "answer"
       /\ next # 0 => kind \in {"none", "cancelled"}
       /\ Changed(w, [wk[w] EXCEPT !.pc = IF kind = "retry" THEN "release" ELSE "settle", !.kind = kind, !.hands = hands, !.next = next])
  /\ UNCHANGED <<db, snap, fails, cl, late, lates, used, ever, handed, wrong, faults>>
\* A drain: what was claimed goes back, without costing an attempt.
Back(w) ==
  /\ wk[w].pc \in {"start", "run", "hand"} /\ Fault
  /\ Changed(w, [wk[w] EXCEPT !.pc = "release", !.kind = "back"])
  /\ UNCHANGED <<db, snap, fails, cl, late, lates, used, ever, handed, wrong>>
Hand(w) ==
  /\ wk[w].pc = "hand"
  /\ \/ \E next \in {0} \cup (IF Left = {} THEN {} ELSE {Fresh}) : Changed(w, [wk[w] EXCEPT !.pc = "deliver", !.next = next])
        /\ handed' = handed \cup {wk[w].rep}
     \/ Changed(w, [wk[w] EXCEPT !.pc = "undeliver"]) /\ UNCHANGED handed
  /\ UNCHANGED <<db, snap, fails, cl, late, lates, used, ever, wrong, faults>>
\* The mutant that shows the reply before it is committed.
HandEarly(w) ==
  /\ ~On("commit first") /\ wk[w].pc = "settle" /\ wk[w].kind = "answer" /\ handed' = handed \cup {wk[w].cid}
  /\ UNCHANGED <<db, snap, fails, cl, wk, late, lates, used, ever, wrong, faults>>
Renew(w) ==
  /\ wk[w].tok # Nothing /\ db' = Renewed(db, wk[w].tok) /\ UNCHANGED <<snap, fails, world, faults>>
Crash(w) == wk[w].pc # "idle" /\ Fault /\ Changed(w, Idle) /\ UNCHANGED <<db, snap, fails, cl, late, lates, used, ever, handed, wrong>>

Held == \E w \in Workers : wk[w].tok = db.lease.tok /\ wk[w].tok # Nothing
Expire ==
  /\ db.lease.live /\ db' = [db EXCEPT !.lease.live = FALSE]
  /\ IF Held THEN Fault ELSE UNCHANGED faults
  /\ UNCHANGED <<snap, fails, world>>
\* The tombstone's own end, a minute after anybody could still send its operation again.
Vanish ==
  /\ db.lease # NoLease /\ ~db.lease.live /\ db' = [db EXCEPT !.lease = NoLease]
  /\ \A w \in Workers : wk[w].tok = Nothing \/ wk[w].tok \notin {db.lease.op[1], db.lease.tok}
  /\ UNCHANGED <<snap, fails, world, faults>>

-----------------------------------------------------------------------------
\* The caller: one call at a time, sent again under its number until an answer comes.
Call ==
  /\ ~cl.sent /\ cl.n < MaxCalls
  /\ \E kind \in Kinds : cl' = [cl EXCEPT !.n = @ + 1, !.sent = TRUE, !.again = FALSE, !.kinds = Append(@, kind)]
  /\ UNCHANGED <<db, snap, fails, wk, late, lates, used, ever, handed, wrong, faults>>
Answered ==
  /\ cl.sent
  /\ LET r == Apply(db, cl.n, cl.kinds[cl.n], cl.again)
     IN db' = r.d /\ cl' = [cl EXCEPT !.sent = FALSE, !.again = FALSE, !.told = Append(@, r.id)]
  /\ UNCHANGED <<snap, fails, wk, late, lates, used, ever, handed, wrong, faults>>
Unheard ==
  /\ cl.sent /\ Len(db.stream) < MaxCalls /\ Fault
  /\ \/ db' = Apply(db, cl.n, cl.kinds[cl.n], cl.again).d
     \/ db' = db
  /\ cl' = [cl EXCEPT !.again = TRUE]
  /\ UNCHANGED <<snap, fails, wk, late, lates, used, ever, handed, wrong>>

\* A copy of a request stays on the way, and arrives whenever it likes.
Linger ==
  /\ late = None /\ lates < MaxLate /\ lates' = lates + 1 /\ Fault
  /\ \/ \E w \in Workers : wk[w].pc \in Sends /\ late' = wk[w]
     \/ cl.sent /\ late' = [pc |-> "call", n |-> cl.n, kind |-> cl.kinds[cl.n]]
  /\ UNCHANGED <<db, snap, fails, cl, wk, used, ever, handed, wrong>>
Arrive ==
  /\ late # None /\ late' = None
  /\ LET r == Exec(db, late, TRUE)
     IN IF late.pc = "call" THEN db' = r.d /\ UNCHANGED <<used, ever, wrong>>
        ELSE Serve(late, r) /\ wrong' = wrong \cup Blind(r, late) \cup Zombie(r, late)
  /\ UNCHANGED <<snap, fails, cl, wk, lates, handed, faults>>

\* A replica that has everything up to now; later it takes over, and what came since is forgotten.
Replicate == fails < MaxFails /\ snap # db /\ snap' = db /\ UNCHANGED <<db, fails, world, faults>>
Failover ==
  /\ fails < MaxFails /\ snap # None /\ snap # db /\ fails' = fails + 1 /\ db' = snap /\ Fault
  /\ snap' = IF fails' = MaxFails THEN None ELSE snap
  /\ late' = None  \* what was on its way to the old server ends with its connection
  /\ UNCHANGED <<cl, wk, lates, used, ever, handed, wrong>>

Next ==
  \/ Call \/ Answered \/ Unheard \/ Expire \/ Vanish \/ Linger \/ Arrive \/ Replicate \/ Failover
  \/ \E w \in Workers : \/ Ask(w) \/ Sent(w, TRUE) \/ Sent(w, FALSE) \/ End(w) \/ Back(w) \/ Hand(w) \/ HandEarly(w)
                        \/ Renew(w) \/ Crash(w)
Spec == Init /\ [][Next]_vars

\* What happens without anybody's ill luck, for liveness.
Good == Call \/ Answered \/ (Expire /\ ~Held) \/ Arrive \/ \E w \in Workers : Ask(w) \/ Sent(w, TRUE) \/ End(w) \/ Hand(w)
Fair == Spec /\ WF_vars(Good)

-----------------------------------------------------------------------------
All(d) == d.log \o d.stream
Entries(d) == SetOf(All(d)) \cup d.gone
Busy(d) == d.stream # <<>> \/ d.run.k # "none"

\* Nothing that was stored is lost, and nothing that a caller was told of.
I1 == /\ db.stored \subseteq {e[2] : e \in Entries(db)}
      /\ fails = 0 => \A n \in 1..Len(cl.told) : cl.told[n] # 0 => \E e \in Entries(db) : e[1] = cl.told[n]
\* Ids and calls only grow: in a batch, across batches, and when the stream was deleted and made anew.
I2 == LET s == All(db) IN \A i \in 1..(Len(s) - 1) : s[i][1] < s[i + 1][1] /\ s[i][2] < s[i + 1][2]
\* One holder; nothing is committed twice; who is told that it lost has not won; who lost changes nothing; a commit takes
\* only what its Run has seen.
I3_one_holder == \A v, w \in Workers : (v # w /\ wk[v].tok # Nothing /\ wk[v].tok = db.lease.tok) => wk[w].tok # db.lease.tok
I3_commit_once == LET s == All(db) IN Cardinality(SetOf(s)) = Len(s)
I3_told == "told" \notin wrong
I3_zombie == "zombie" \notin wrong
I3_unseen == "unseen" \notin wrong
\* A batch that is run again has the same members.
I4 == \A a, b \in db.pins : SetOf(a) \cap SetOf(b) # {} => a = b
\* In exactly one index, with the moment that belongs to its state.
I5 == LET live == db.lease.live
          set == db.index[1]
          why == db.index[2]
          k == db.run.k
      IN /\ set = (IF ~Busy(db) THEN "none" ELSE IF k = "reply" THEN "outbox" ELSE "due")
         /\ live => why = "lease" /\ k = (IF db.lease.phase = "run" THEN "batch" ELSE "reply")
         /\ Busy(db) /\ ~live => why \in (IF k = "none" THEN {"window"} ELSE {"lease", "retry", "now"})
\* A call, and a message id, is stored once, and every caller gets the first receipt.
I6 == /\ \A a, b \in Entries(db) : (a[2] = b[2] \/ (cl.kinds[a[2]] = "same" /\ cl.kinds[b[2]] = "same")) => a = b
      /\ fails = 0 => LET same == {n \in 1..Len(cl.told) : cl.kinds[n] = "same" /\ cl.told[n] # 0} IN \A m, n \in same : cl.told[m] = cl.told[n]
\* A reply is never handed over before its commit; none is forgotten; first hand-overs are in order.
I17_committed == handed \subseteq ever
I17_not_lost == \A i \in 1..Len(db.reps) : db.reps[i] \in handed \cup db.buried \cup {db.run.rep}
I17_order == \A i, j \in 1..Len(db.reps) : (i < j /\ db.reps[j] \in handed) => db.reps[i] \in handed \cup db.buried

Drained == /\ ~Busy(db) /\ db.index[1] = "none" /\ ~cl.sent /\ cl.n = MaxCalls /\ late = None
           /\ \A w \in Workers : wk[w].pc = "idle"
Drains == <>[]Drained
Symmetry == Permutations(Workers)
=============================================================================
