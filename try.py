import sys,time
from hypothesis import settings, HealthCheck, Phase, seed
from hypothesis.stateful import run_state_machine_as_test
from tests.stateful.machine import Machine
from tests.stateful.vandals import Vandalised
Machine.world=Vandalised(sys.argv[1] if len(sys.argv)>1 else "valkey-9.1")
Machine.vandals = len(sys.argv)>2 and sys.argv[2]=="v"
n=int(sys.argv[3]) if len(sys.argv)>3 else 30
t=time.time()
sd=int(sys.argv[4]) if len(sys.argv)>4 else 1
try:
    run_state_machine_as_test(seed(sd)(Machine), settings=settings(max_examples=n,stateful_step_count=60,deadline=None,database=None,report_multiple_bugs=False,suppress_health_check=list(HealthCheck),phases=[Phase.generate,Phase.shrink] if len(sys.argv)>5 else [Phase.generate], print_blob=False))
finally:
    w=Machine.world; d=time.time()-t
    print(w.steps,w.lives,"steps/s",w.steps/d)
    w.close()
