# ---- The cluster and the images ---------------------------------------------------------------------------------------

.PHONY: cluster
cluster: ## Kubernetes with KubeRay and an S3 server: RL_CLUSTER=kind|minikube|source|existing, or what the machine offers
	@$(PYTHON) -m hack.cluster up

.PHONY: cluster-down
cluster-down: ## Remove the cluster; the caches stay
	@$(PYTHON) -m hack.cluster down

.PHONY: cluster-status
cluster-status: ## Say which cluster there is and how it is
	@$(PYTHON) -m hack.cluster status

.PHONY: images
images: ## Build the operator's and the trainer's image and bring them to the cluster
	@UV_VERSION=$(UV_VERSION) $(PYTHON) -m hack.cluster images

.PHONY: tools
tools: ## Build kubectl, helm, minio and kwok into .build/bin
	@$(PYTHON) -m hack.cluster tools
