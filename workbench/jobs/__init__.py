"""Work that needs a model: a queue of `same` commands on Dask workers, which run each as a process of its own.

By default the one worker is a thread of this process that waits for the job's process, and nobody else can reach it;
with a scheduler's address the jobs go to that cluster, whose workers must see the same runs folder. The web process
imports no torch and writes nothing: results are files of the run, named by their content, so that what was asked before
is answered from there.
"""
