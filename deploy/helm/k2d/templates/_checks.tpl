{{/* Values that fit the schema and still cannot work: refused with one sentence each, before anything is installed. */}}
{{- define "k2d.checks" -}}
{{- with .Values }}
{{- if and .redis.enabled (not .redis.password) (not .redis.existingSecret) }}
{{- fail "redis.password is missing: set it (letters and digits), or redis.existingSecret" }}
{{- end }}
{{- if and (not .redis.enabled) (not .redis.externalSecret.name) }}
{{- fail "redis.enabled is false: redis.externalSecret.name must name a secret that holds a Redis URL" }}
{{- end }}
{{- if and (not .auth.token) (not .auth.existingSecret) (not .settings.allow_anonymous) }}
{{- fail "no key: set auth.existingSecret (or auth.token, at least 16 characters); settings.allow_anonymous lets everybody in the cluster in" }}
{{- end }}
{{- if and .auth.token (lt (len .auth.token) 16) }}
{{- fail "auth.token has fewer than 16 characters; for instance: openssl rand -hex 32" }}
{{- end }}
{{- if and .api.ingress.enabled (not .auth.token) (not .auth.existingSecret) }}
{{- fail "api.ingress without auth.token or auth.existingSecret would let anybody post audio" }}
{{- end }}
{{- if and .api.ingress.enabled (not .api.ingress.host) }}
{{- fail "api.ingress.host is missing" }}
{{- end }}
{{- if and .worker.autoscaling.enabled (eq .worker.autoscaling.source "prometheus") (not .worker.autoscaling.prometheusAddress) }}
{{- fail "worker.autoscaling.source is prometheus: set worker.autoscaling.prometheusAddress" }}
{{- end }}
{{- if gt (int .worker.autoscaling.minReplicas) (int .worker.autoscaling.maxReplicas) }}
{{- fail "worker.autoscaling.minReplicas is above maxReplicas" }}
{{- end }}
{{- if and (not .teacher.enabled) (not .teacher.address) }}
{{- fail "teacher.enabled is false: teacher.address must say where a teacher's server is; workers hold no weights" }}
{{- end }}
{{- if and .validator.enabled (not .validator.model) }}
{{- fail "validator.enabled is true: set validator.model, a second model; without one leave it off (the fallback is `perturbed`)" }}
{{- end }}
{{- if and .trainer.enabled (not .trainer.dataset) }}
{{- fail "trainer.enabled is true: trainer.dataset must name a frozen dataset" }}
{{- end }}
{{- end }}
{{- end }}
