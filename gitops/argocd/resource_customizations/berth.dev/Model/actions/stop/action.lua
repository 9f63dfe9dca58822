-- Servers finish their requests, stop, and free their GPUs.
obj.spec.state = "Stopped"
return obj
