"""A Kubernetes API for integration tests: kube-apiserver, etcd and kube-controller-manager as plain processes."""
